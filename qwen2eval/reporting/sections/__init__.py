"""The sections of a report: each has one module here and one template, `reports/templates/sections/<name>.*.j2`."""
