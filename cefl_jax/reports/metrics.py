"""The `metrics.jsonl` of many runs, read by one query of DuckDB."""

import glob
import os
from typing import NamedTuple

import duckdb
import numpy as np

LINES = """
CREATE TEMP TABLE lines AS
SELECT filename AS file, json, TRY_CAST(json->>'round' AS BIGINT) AS round
FROM read_json_objects($files, format='newline_delimited', ignore_errors=true, filename=true,
                       hive_partitioning=false)
"""
FAULTS = """
SELECT file, CASE
    WHEN count(*) FILTER (json IS NULL) > 0 THEN 'has a line that is not JSON'
    WHEN count(*) FILTER (json_type(json) <> 'OBJECT') > 0 THEN 'has a line that is not a record'
    WHEN count(round) < count(*) THEN 'has a line without a round'
    WHEN count(DISTINCT round) < count(*) THEN 'has a round twice'
END AS fault
FROM lines GROUP BY file HAVING fault IS NOT NULL
"""
SERIES = """
SELECT file, entry.key,
    list(round ORDER BY round),
    list(TRY_CAST(entry.value AS DOUBLE) ORDER BY round),
    count(*) FILTER (entry.type = 'NULL' OR NOT isfinite(TRY_CAST(entry.value AS DOUBLE))),
    count(*) FILTER (entry.type NOT IN ('DOUBLE', 'BIGINT', 'UBIGINT', 'NULL'))
FROM lines, json_each(lines.json) AS entry
WHERE json_type(lines.json) = 'OBJECT' AND round IS NOT NULL
GROUP BY file, entry.key
ORDER BY file, min(entry.id)
"""


class Metrics(NamedTuple):
    """The evaluations of one run, in the order of their rounds."""

    values: dict  # metric: f64[T], nan where it is missing or was not finite
    skipped: dict  # metric: number of values that were not finite, where there are any


def read_metrics(files):
    """The evaluations in each file.

    A value that was not finite is null in the file. A metric that a run does not have is absent.

    Args:
      files: absolute paths of existing files, as str.
    Returns:
      {file: Metrics}, and {file: why it cannot be read}; each file is in one of the two.
    """
    if not files:
        return {}, {}
    faults = {file: "is empty" for file in files if not os.path.getsize(file)}
    series = {file: {} for file in files}
    with duckdb.connect() as connection:
        # DuckDB takes the names of files for patterns.
        connection.execute(LINES, {"files": [glob.escape(file) for file in files]})
        faults |= dict(connection.execute(FAULTS).fetchall())
        for file, metric, rounds, values, nulls, others in connection.execute(SERIES).fetchall():
            series[file][metric] = rounds, np.array(values, float), nulls
            if others:
                faults.setdefault(file, f"has values of {metric} that are no numbers")
    whole = {file: _align(found) for file, found in series.items() if file not in faults}
    return whole, faults


def _align(series):
    """Metrics at all rounds of a run, from each metric's own rounds."""
    all_rounds = series["round"][0]
    values = {}
    for metric, (rounds, known, _) in series.items():
        values[metric] = np.full(len(all_rounds), np.nan)
        known = np.where(np.isfinite(known), known, np.nan)
        values[metric][np.searchsorted(all_rounds, rounds)] = known
    return Metrics(values, {metric: nulls for metric, (_, _, nulls) in series.items() if nulls})
