"""A finished run on disk, as plain tables; knows neither tasks nor models."""
