//! One suite for every store that can be reached: the same rows in, the same answers out. A failing test names the store.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests say what is wrong and fail"
)]

mod day;
mod migrations;
mod reading;
mod retention;
mod rollups;
#[path = "../../src/sample_rows.rs"]
#[allow(dead_code, reason = "shared with the store's own tests, which need others of them")]
mod rows;
mod stand;
mod views;
mod writing;

/// One test of each question on one store.
macro_rules! one_store {
    ($store:ident, $kind:ident, $($module:ident { $($test:ident)+ })+) => {
        mod $store {
            $(mod $module {
                $(#[tokio::test]
                async fn $test() {
                    crate::stand::on(crate::stand::Kind::$kind, crate::$module::$test).await;
                })+
            })+
        }
    };
}

macro_rules! every_store {
    ($($all:tt)+) => {
        one_store!(sqlite, Sqlite, $($all)+);
        one_store!(postgres, Postgres, $($all)+);
        one_store!(timescale, Timescale, $($all)+);
        one_store!(mariadb, Mariadb, $($all)+);
    };
}

every_store! {
    writing {
        every_table_is_read_back_as_written_and_a_replay_changes_nothing
        an_overlapping_batch_adds_what_is_new
        greatest_and_smallest_values_come_back
        text_comes_back_to_the_byte_and_tells_keys_apart
        the_first_of_a_key_stays
        the_newest_of_a_key_wins_and_a_tie_replaces
        versions_of_an_instrument_follow_each_other
        decimals_that_do_not_fit_are_named
        rows_that_no_table_takes_are_named
        large_batches_are_stored_whole
        nothing_is_written_for_nothing
        two_writers_of_the_same_rows_store_them_once
        two_writers_of_other_versions_leave_the_newest
    }
    reading {
        a_range_ascends_from_its_start_or_ends_with_the_newest
        no_question_gives_more_rows_than_the_bound
        the_newest_of_each_category_and_their_counts
        series_of_an_instrument_are_read_back_as_written
        instruments_in_force_come_by_venue_market_and_name
        gaps_are_found_by_what_they_are_and_when_the_newest_first
        pages_of_gaps_follow_each_other_where_many_begin_at_once
        the_ends_of_a_stream_are_the_times_of_its_first_and_last_row
        an_empty_store_answers_with_nothing
    }
    retention {
        rows_beyond_their_age_go_and_no_others
        a_replay_of_expired_rows_is_stored_and_expires_again
    }
    rollups {
        hours_and_days_are_folded_and_late_rows_repair_them
        what_has_expired_keeps_its_roll_up
    }
    views {
        the_documented_columns_are_there
        the_numbers_are_those_of_the_rows
        hours_and_days_of_categories_are_folded
        every_second_with_any_bar_appears_once
        the_pairs_in_force_are_listed_with_their_state
    }
    migrations {
        a_second_migration_changes_nothing
        two_that_start_at_once_do_not_collide
    }
    day {
        the_same_day_gives_the_same_answers
    }
}
