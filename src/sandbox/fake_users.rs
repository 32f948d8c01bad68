//! Believable users, the same ones each time: mostly e-mail addresses, some telephone numbers, some
//! names with letters that a path must encode.

use super::users::NewUser;
use crate::core::model::request::AccountId;

const FIRST: [&str; 32] = [
    "Anne", "Bjørn", "Camilla", "Dag", "Eirik", "Frøydis", "Geir", "Hanne", "Ingrid", "Jan",
    "Kari", "Lars", "Marit", "Nils", "Ola", "Per", "Ragnhild", "Silje", "Tor", "Unni", "Vegard",
    "Wenche", "Yngve", "Åse", "Øystein", "Berit", "Sindre", "Solveig", "Magnus", "Tuva", "Håkon",
    "Live",
];

const LAST: [&str; 31] = [
    "Andersen",
    "Bakken",
    "Berg",
    "Dahl",
    "Eide",
    "Fjeld",
    "Gundersen",
    "Haugen",
    "Iversen",
    "Johansen",
    "Kristiansen",
    "Lie",
    "Moen",
    "Nordmann",
    "Olsen",
    "Pettersen",
    "Rønning",
    "Solberg",
    "Strand",
    "Sæther",
    "Tveit",
    "Ulvestad",
    "Vik",
    "Wold",
    "Ødegård",
    "Aas",
    "Hagen",
    "Myhre",
    "Nygård",
    "Sunde",
    "Lunde",
];

/// Steps through all pairs of names without repeating one: it shares no factor with their number.
const STEP: usize = 611;

/// This many users of an account, no two of one name.
pub fn people(account: &AccountId, count: usize) -> impl Iterator<Item = NewUser> {
    let account = account.clone();
    (0..count).map(move |index| NewUser {
        account_id: account.clone(),
        username: username(index).into(),
        id: None,
    })
}

fn username(index: usize) -> String {
    let pairs = FIRST.len() * LAST.len();
    let (round, pair) = (index / pairs, index * STEP % pairs);
    let (first, last) = (FIRST[pair % FIRST.len()], LAST[pair / FIRST.len()]);
    let again = if round == 0 {
        String::new()
    } else {
        (round + 1).to_string()
    };
    match index % 16 {
        5 => format!("+47 9{index:07}"),
        11 => format!("{first} {last}{again}"),
        _ => format!("{}.{}{again}@example.com", plain(first), plain(last)),
    }
}

/// As such names are written in e-mail addresses.
fn plain(name: &str) -> String {
    name.to_lowercase()
        .replace('æ', "ae")
        .replace('ø', "o")
        .replace('å', "a")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_people_bear_one_name() {
        let account = AccountId::parse("T12345678").unwrap();
        let names: HashSet<_> = people(&account, 20_000).map(|seed| seed.username).collect();
        assert_eq!(names.len(), 20_000);
    }

    #[test]
    fn people_look_like_people() {
        let names: Vec<String> = (0..12).map(username).collect();
        insta::assert_snapshot!(names.join("\n"));
    }
}
