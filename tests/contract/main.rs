//! What the code promises about itself: its shape, its API, its error pages.

mod arrows;
mod error_pages;
