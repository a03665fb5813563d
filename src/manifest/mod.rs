//! Text → what is wanted, and every problem on the way.
