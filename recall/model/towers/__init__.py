"""The towers: features -> vectors. Items first, since both query towers read item representations."""
