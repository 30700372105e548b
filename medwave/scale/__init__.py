"""Floor 4: work spread over the processes of a cluster, by Dask.

A cluster is named in a word (:func:`parse_cluster`), opened for the time of a job (:func:`open_workers`), and handed
to a workflow, which gives it functions and items (:class:`Workers`). What the work is, this room does not know. Nothing
here imports Dask until a cluster is opened.
"""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "ClusterSpec": "medwave.scale.spec",
        "Done": "medwave.scale.workers",
        "Workers": "medwave.scale.workers",
        "job_script": "medwave.scale.cluster",
        "open_workers": "medwave.scale.cluster",
        "parse_cluster": "medwave.scale.spec",
    },
)
