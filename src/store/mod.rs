//! Where mail rests.
