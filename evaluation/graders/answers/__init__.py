"""Whether two maths answers say the same: read as trees, compared part by part, their expressions by algebra."""
