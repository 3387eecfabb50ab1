"""How one completion is judged: `maths` by the value of its boxed answer, `code` by running it."""
