//! The API's URLs: whatever the base and the username, the name is one segment of the path at its
//! place, and nothing leads elsewhere.

#![no_main]

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use rename_worker::core::model::request::{AccountId, Username};
use rename_worker::dintero::fuzzing::urls;
use url::Url;

fuzz_target!(|data: &[u8]| {
    let Some((&length, rest)) = data.split_first() else {
        return;
    };
    let (base, name) = rest.split_at(usize::from(length).min(rest.len()));
    let (base, name) = (String::from_utf8_lossy(base), String::from_utf8_lossy(name));
    let Ok(username) = Username::parse(&name) else {
        return;
    };
    let account = AccountId::parse("T12345678").expect("an account");
    // Half of them below a base that is fine.
    for base in [&*base, "https://api.dintero.com/v1"] {
        let Ok((change, token)) = urls(base, &account, &username) else {
            continue;
        };
        let token = Url::parse(&token).expect("it is a URL");
        assert!(token.path().ends_with("/accounts/T12345678/auth/token"));
        assert!(token.query().is_none() && token.fragment().is_none());
        let Some(change) = change else {
            assert!(name == "." || name == "..", "no path for {name:?}");
            continue;
        };
        let change = Url::parse(&change).expect("it is a URL");
        assert_eq!(
            change.origin().ascii_serialization(),
            token.origin().ascii_serialization()
        );
        assert!(change.query().is_none() && change.fragment().is_none());
        let users = token.path().strip_suffix("token").expect("it ends so");
        let below = change
            .path()
            .strip_prefix(users)
            .expect("both are the account's");
        let segments: Vec<&str> = below.split('/').collect();
        let ["users", segment, "change_username"] = segments[..] else {
            panic!("the name leads elsewhere: {below}");
        };
        assert_eq!(
            percent_decode_str(segment).decode_utf8().as_deref(),
            Ok(&*name)
        );
    }
});
