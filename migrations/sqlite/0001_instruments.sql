-- Facts refer to `instrument_id`, a hash of venue, market and native symbol that every process derives alike; names live here.

-- One row for each period in which an instrument's facts held. The row in force has no end.
create table instruments (
    instrument_id integer not null,
    valid_from_us integer not null,
    valid_to_us integer,
    venue text not null,
    market text not null check (market in ('spot', 'futures')),
    native text not null,
    symbol text not null,
    base text not null,
    quote text not null,
    settle text,
    kind text not null,
    expiry_ms integer,
    status text not null,
    tick_size text not null,
    lot_size text not null,
    contract_size text not null,
    price_scale integer not null check (price_scale between 0 and 18),
    qty_scale integer not null check (qty_scale between 0 and 18),
    facts text not null,
    primary key (instrument_id, valid_from_us)
) strict, without rowid;

-- At most one row of an instrument is in force; every readable view joins through this index.
create unique index instruments_in_force on instruments (instrument_id) where valid_to_us is null;

-- People ask by name, and a view must find the instrument first instead of reading the facts of all.
create index instruments_by_native on instruments (native, venue, market) where valid_to_us is null;

-- What a mantissa is divided by to be a number. A power of ten up to 10^22 is exact in binary floating point, so that the
-- one rounding left is that of the division: 5 on scale 8 gives the same number as the literal 5e-8.
-- Microprices are on the price's scale + 4, hence 22.
create table decimal_units (
    scale integer primary key,
    unit real not null
) strict;

insert into decimal_units (scale, unit)
with recursive units (scale, unit) as (
    select 0, 1.0
    union all
    select scale + 1, unit * 10.0 from units where scale < 22
)
select scale, unit from units;
