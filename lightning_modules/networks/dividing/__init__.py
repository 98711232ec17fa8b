"""Running a network up to a layer, or from a layer on."""
