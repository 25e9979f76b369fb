"""The report of a run: report.{json,md,html} with its pictures."""
