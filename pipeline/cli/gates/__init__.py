"""Commands of `vcore` that judge scores: `gate`, and `bless`, which says what by."""
