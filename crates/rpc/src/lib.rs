//! How every gRPC server listens and every client calls.
