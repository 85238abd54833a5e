//! Query parameters, with the venue's errors for bad ones.

use super::ApiError;
use crate::commands::percent_decoded;
use crate::engine::interval::Interval;

/// The parameters of a request.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).take(64);
        let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decoded(k), decoded(v)))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// An empty value is an error.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        match self.0.iter().find(|(_, value)| value.is_empty()) {
            Some((name, _)) => Err(ApiError::bad(-1105, format!("Parameter '{name}' was empty."))),
            None => Ok(()),
        }
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| {
            ApiError::bad(
                -1102,
                format!("Mandatory parameter '{name}' was not sent, was empty/null, or malformed."),
            )
        })
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let illegal = || {
            ApiError::bad(
                -1100,
                format!("Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."),
            )
        };
        let value = self
            .get(name)
            .map(|text| text.parse::<i64>().ok().filter(|value| *value >= 0).ok_or_else(illegal));
        value.transpose()
    }

    /// `limit`, capped as the venue caps it.
    pub(crate) fn limit(&self, default: usize, most: usize) -> Result<usize, ApiError> {
        let limit = self.integer("limit")?.map_or(default, |limit| usize::try_from(limit).unwrap_or(default));
        if limit == 0 {
            return Err(ApiError::bad(-1130, "Data sent for parameter 'limit' is not valid."));
        }
        Ok(limit.min(most))
    }

    pub(crate) fn interval(&self) -> Result<Interval, ApiError> {
        Interval::parse(self.required("interval")?).ok_or_else(|| ApiError::bad(-1120, "Invalid interval."))
    }

    /// `symbols=["A","B"]`.
    pub(crate) fn symbols(&self) -> Result<Option<Vec<String>>, ApiError> {
        let parse = |text: &str| {
            serde_json::from_str(text)
                .map_err(|_| ApiError::bad(-1100, "Illegal characters found in parameter 'symbols'."))
        };
        self.get("symbols").map(parse).transpose()
    }
}
