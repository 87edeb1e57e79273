"""Budget in, model out."""
