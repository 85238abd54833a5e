//! What leaves the service for others.
//!
//! **Architecture invariant.** The only home of redis. Nothing here is needed for collecting: whatever is away, slow or
//! full costs its readers freshness and nobody else anything.
