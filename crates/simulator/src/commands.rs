//! Frames that clients send, and their answers (binance sheet, section 3).

use serde_json::{Value, json};

/// A readable command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Subscribe { names: Vec<String>, id: Value },
    Unsubscribe { names: Vec<String>, id: Value },
    List { id: Value },
}

/// Reads a frame; the error is the frame to answer.
pub(crate) fn parse(text: &str) -> Result<Command, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| json!({"code": 3, "msg": format!("Invalid JSON: {error}")}).to_string())?;
    let id = value.get("id").cloned().unwrap_or(Value::Null);
    if !usable_id(&id) {
        return Err(invalid("request ID must be an unsigned integer"));
    }
    let method =
        value.get("method").and_then(Value::as_str).ok_or_else(|| invalid("missing field `method`"))?;
    match method {
        "SUBSCRIBE" => Ok(Command::Subscribe { names: names(&value)?, id }),
        "UNSUBSCRIBE" => Ok(Command::Unsubscribe { names: names(&value)?, id }),
        "LIST_SUBSCRIPTIONS" => Ok(Command::List { id }),
        "SET_PROPERTY" | "GET_PROPERTY" => {
            Err(json!({"code": 0, "msg": "Unknown property", "id": id}).to_string())
        }
        other => Err(invalid(&format!(
            "unknown variant {other}, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
        ))),
    }
}

fn usable_id(id: &Value) -> bool {
    match id {
        Value::Null => true,
        Value::Number(number) => number.is_i64(),
        Value::String(text) => text.len() <= 36 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        _ => false,
    }
}

fn invalid(what: &str) -> String {
    json!({"code": 2, "msg": format!("Invalid request: {what}")}).to_string()
}

fn names(value: &Value) -> Result<Vec<String>, String> {
    let listed =
        value.get("params").and_then(Value::as_array).ok_or_else(|| invalid("missing field `params`"))?;
    let texts = listed.iter().map(|name| name.as_str().map(str::to_owned));
    texts.collect::<Option<Vec<_>>>().ok_or_else(|| invalid("invalid type in `params`, expected a string"))
}

/// The acknowledgement, which proves nothing about data.
pub(crate) fn done(id: &Value) -> String {
    format!(r#"{{"result":null,"id":{id}}}"#)
}

pub(crate) fn list(names: &[String], id: &Value) -> String {
    format!(r#"{{"result":{},"id":{id}}}"#, json!(names))
}

pub(crate) fn too_many(id: &Value) -> String {
    format!(r#"{{"error":{{"code":4,"msg":"Too many subscriptions"}},"id":{id}}}"#)
}

/// A part of a URL in plain text; what is no valid encoding stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_errors_follow_the_sheet() {
        let sent = r#"{"method":"SUBSCRIBE","params":["a@trade"],"id":7}"#;
        assert_eq!(parse(sent), Ok(Command::Subscribe { names: vec!["a@trade".to_owned()], id: json!(7) }));
        assert!(parse("nonsense").unwrap_err().starts_with(r#"{"code":3,"msg":"Invalid JSON: expected"#));
        assert!(parse(r#"{"method":"SUBSCRIB","id":1}"#).unwrap_err().contains("unknown variant SUBSCRIB"));
        assert!(parse(r#"{"method":"LIST_SUBSCRIPTIONS","id":[1]}"#).unwrap_err().contains("request ID"));
        assert_eq!(done(&json!("x1")), r#"{"result":null,"id":"x1"}"#);
    }

    #[test]
    fn urls_are_decoded() {
        assert_eq!(percent_decoded("%E5%B8%81usdt%40trade"), "币usdt@trade");
        assert_eq!(percent_decoded("100%"), "100%");
    }
}
