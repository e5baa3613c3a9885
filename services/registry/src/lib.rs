//! Wolves and identities: who is in the fleet, who may do what.
