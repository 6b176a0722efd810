"""The methods the paper compares with; none is here yet beyond the controls of a search."""
