//! Reads support bundles and cores offline.
