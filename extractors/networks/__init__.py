"""The networks of the extractors, and the parts that several of them share."""
