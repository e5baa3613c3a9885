//! Who may do what, from the outside: every rpc with no key, a wrong key,
//! another project's key on a live resource, and the owner's key.

mod dynamic_call;
mod matrix;
mod rows;
mod sandbox_secrets;
