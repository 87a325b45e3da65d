-- SPDX-License-Identifier: MPL-2.0
-- Tag, d1, leaf -> an owner's part in a variant that has many. A server of version 1 cannot read
-- the record of such a variant, and says so; it does not take it for one without owners.
create table camvault.members (key bytea primary key, value bytea not null);
-- The registry of a third party.
alter table camvault.settings add column registry_secrets bytea;

-- Signing key -> party; the parameters of key proofs.
create table camvault.parties (key bytea primary key, value bytea not null);
-- Contract -> its record.
create table camvault.contracts (key bytea primary key, value bytea not null);
-- Contract, number -> ticket.
create table camvault.tickets (key bytea primary key, value bytea not null);
-- Words that were given away, under a keyed hash.
create table camvault.words (key bytea primary key, value bytea not null);
-- Index -> receipt of a deletion; the end of the log.
create table camvault.log (key bytea primary key, value bytea not null);
-- Strand, number -> tickets or a report, with their hashes; strand -> the next number.
create table camvault.features (key bytea primary key, value bytea not null);
