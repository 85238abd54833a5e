-- Facts refer to `instrument_id`, a hash of venue, market and native symbol that every process derives alike; names live here.
-- Text compares by its bytes (collate "C"), as on the other stores.

-- One row for each period in which an instrument's facts held. The row in force has no end.
create table instruments (
    instrument_id bigint not null,
    valid_from_us bigint not null,
    valid_to_us bigint,
    venue text collate "C" not null,
    market text collate "C" not null check (market in ('spot', 'futures')),
    native text collate "C" not null,
    symbol text collate "C" not null,
    base text collate "C" not null,
    quote text collate "C" not null,
    settle text collate "C",
    kind text collate "C" not null,
    expiry_ms bigint,
    status text collate "C" not null,
    tick_size numeric(28,12) not null,
    lot_size numeric(28,12) not null,
    contract_size numeric(28,12) not null,
    price_scale bigint not null check (price_scale between 0 and 18),
    qty_scale bigint not null check (qty_scale between 0 and 18),
    facts text collate "C" not null,
    primary key (instrument_id, valid_from_us)
);

-- At most one row of an instrument is in force; every readable view joins through this index.
create unique index instruments_in_force on instruments (instrument_id) where valid_to_us is null;

-- People ask by name, and a view must find the instrument first instead of reading the facts of all.
create index instruments_by_native on instruments (native, venue, market) where valid_to_us is null;

-- A mantissa as the number that it stands for, exactly. Microprices are on the price's scale + 4, hence 22 decimals.
-- One expression, so that the planner puts it in place of the call.
create function on_scale(mantissa bigint, scale bigint) returns numeric
language sql immutable strict parallel safe
as $$
    select mantissa * ('{1,0.1,0.01,0.001,0.0001,0.00001,0.000001,0.0000001,0.00000001,0.000000001,0.0000000001,0.00000000001,0.000000000001,0.0000000000001,0.00000000000001,0.000000000000001,0.0000000000000001,0.00000000000000001,0.000000000000000001,0.0000000000000000001,0.00000000000000000001,0.000000000000000000001,0.0000000000000000000001}'::numeric[])[scale + 1]
$$;
