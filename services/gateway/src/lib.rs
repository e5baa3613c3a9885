//! The users' public port: gRPC by path, reflection, health, screenshots for curl.
