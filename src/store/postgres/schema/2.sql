-- SPDX-License-Identifier: MPL-2.0
-- Tag, d1, leaf -> an owner's part in a variant that has many. A server of version 1 cannot read
-- the record of such a variant, and says so; it does not take it for one without owners.
create table camvault.members (key bytea primary key, value bytea not null);
