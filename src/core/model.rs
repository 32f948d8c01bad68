//! What the decisions are about: requests, the API's responses, outcomes. Decides nothing.

// A rename request, valid once constructed.
pub mod request;
// When a request was asked for, where what its publisher says of that can be true.
pub mod request_time;
// What the API said to one call, as facts.
pub mod api_response;
// How a request ends, and what travels with it until then.
pub mod outcome;
// When two spellings are one name.
pub mod names;
