-- SPDX-License-Identifier: MPL-2.0
-- The metadata of a vault: key spaces of src/store/tables, with CBOR records as values.
create schema if not exists camvault;

create table camvault.settings (
    only_row boolean primary key default true check (only_row),
    version integer not null,
    secrets bytea
);
insert into camvault.settings (version) values (0);

-- Signing key -> owner; leaf -> signing key, usage.
create table camvault.owners (key bytea primary key, value bytea not null);
-- Tag, d1 -> variant.
create table camvault.variants (key bytea primary key, value bytea not null);
-- d1 -> state.
create table camvault.blobs (key bytea primary key, value bytea not null);
-- Recordings, heads and shares.
create table camvault.records (key bytea primary key, value bytea not null);
-- Owner, recording, number -> segment.
create table camvault.segments (key bytea primary key, value bytea not null);
-- Holds and trash in the order of time.
create table camvault.queues (key bytea primary key, value bytea not null);
-- What servers keep for each other: jobs, requests that were done, allowances.
create table camvault.servers (key bytea primary key, value bytea not null);

-- Sealed: cannot be compressed.
alter table camvault.records alter column value set storage external;
alter table camvault.segments alter column value set storage external;

-- Sums over all rows; a writer adds to any of them, so that writers do not wait for each other.
create table camvault.totals (
    stripe smallint primary key,
    bytes_logical bigint not null,
    bytes_stored bigint not null,
    chunks bigint not null,
    variants bigint not null,
    blobs bigint not null,
    recordings bigint not null,
    owners bigint not null,
    bytes_manifests bigint not null,
    segments bigint not null
);
