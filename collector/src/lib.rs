//! Takes the evidence of a hung process group before it is restarted.
