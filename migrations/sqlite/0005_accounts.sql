-- What became of every row that was offered, by table: written in the transaction that accepts the rows, so that the
-- figures hold across a kill. A figure is offered, accepted, stored, duplicate, quarantined, discarded, expired, or
-- refused: with a reason behind the colon.
create table sink_counts (
    table_name text not null,
    figure text not null,
    rows integer not null,
    primary key (table_name, figure)
) strict, without rowid;

-- The last accepted batch of each start of the program, and what became of its rows: a batch whose answer was lost is
-- known again by its number and not counted twice.
create table sink_epochs (
    epoch integer not null primary key,
    seq integer not null,
    stored integer not null,
    duplicate integer not null
) strict;

-- How far each stream is accepted. Only moves forward.
create table stream_marks (
    instrument_id integer not null,
    channel text not null,
    last_us integer not null,
    last_id text,
    primary key (instrument_id, channel)
) strict, without rowid;

-- Rows that the store refuses for what they hold: as JSON by column name for people, as a batch of one for sending again.
create table quarantine (
    id integer not null primary key autoincrement,
    table_name text not null,
    rows integer not null,
    row_json text,
    batch blob not null,
    error text not null,
    first_us integer not null,
    attempts integer not null,
    status text not null check (status in ('waiting', 'refused_again', 'damaged'))
) strict;
create index quarantine_by_table on quarantine (table_name, id);
