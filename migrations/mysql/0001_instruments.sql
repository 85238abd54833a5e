-- Every statement of these files may run again on what it has made before: statements that change the schema commit on their
-- own, so that a crash leaves a migration half done, and the next start runs it again from its beginning.
--
-- Facts refer to `instrument_id`, a hash of venue, market and native symbol that every process derives alike; names live here.
-- Text is compared byte for byte (`utf8mb4_bin`), whatever the server's own default is.

-- One row for each period in which an instrument's facts held. The row in force has no end.
create table if not exists instruments (
    instrument_id bigint not null,
    valid_from_us bigint not null,
    valid_to_us bigint,
    venue varchar(32) not null,
    market varchar(16) not null check (market in ('spot', 'futures')),
    native varchar(128) not null,
    symbol varchar(128) not null,
    base varchar(64) not null,
    quote varchar(64) not null,
    settle varchar(64),
    kind varchar(32) not null,
    expiry_ms bigint,
    status varchar(32) not null,
    tick_size decimal(28, 12) not null,
    lot_size decimal(28, 12) not null,
    contract_size decimal(28, 12) not null,
    price_scale smallint not null check (price_scale between 0 and 18),
    qty_scale smallint not null check (qty_scale between 0 and 18),
    facts mediumtext not null,
    -- The id while the row is in force, else null: at most one row of an instrument is, and every readable view joins here.
    in_force bigint generated always as (if(valid_to_us is null, instrument_id, null)) stored,
    primary key (instrument_id, valid_from_us),
    unique key instruments_in_force (in_force),
    -- People ask by name, and a view must find the instrument first instead of reading the facts of all.
    key instruments_by_native (native, venue, market)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

-- What a mantissa is multiplied with to be a number. Microprices are on the price's scale + 4, hence 22.
create table if not exists decimal_units (
    scale smallint not null,
    unit decimal(23, 22) not null,
    primary key (scale)
) engine = innodb default character set utf8mb4 collate utf8mb4_bin;

insert into decimal_units (scale, unit) values
    (0, 1),
    (1, 0.1),
    (2, 0.01),
    (3, 0.001),
    (4, 0.0001),
    (5, 0.00001),
    (6, 0.000001),
    (7, 0.0000001),
    (8, 0.00000001),
    (9, 0.000000001),
    (10, 0.0000000001),
    (11, 0.00000000001),
    (12, 0.000000000001),
    (13, 0.0000000000001),
    (14, 0.00000000000001),
    (15, 0.000000000000001),
    (16, 0.0000000000000001),
    (17, 0.00000000000000001),
    (18, 0.000000000000000001),
    (19, 0.0000000000000000001),
    (20, 0.00000000000000000001),
    (21, 0.000000000000000000001),
    (22, 0.0000000000000000000001)
on duplicate key update scale = scale;
