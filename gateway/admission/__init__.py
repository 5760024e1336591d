"""How a job moves: from request to verdict, through isolated workers that are reached over gRPC only.

:mod:`gateway.admission.pipeline` claims jobs by lease and takes each one step further at a time; the steps are in
:mod:`gateway.admission.intake`, :mod:`gateway.admission.training`, :mod:`gateway.admission.release` and
:mod:`gateway.admission.settling`, and what they all work with in :mod:`gateway.admission.office`. Around them:
:mod:`gateway.admission.facts` (what policy is told), :mod:`gateway.admission.account` (what was used up before),
:mod:`gateway.admission.quotes` (what the job will take), :mod:`gateway.admission.hyperparameters` and
:mod:`gateway.admission.searching` (what it is trained with), :mod:`gateway.admission.fixes` (what would pass instead),
:mod:`gateway.admission.capabilities` (what the train worker has), :mod:`gateway.admission.exchange` (sealed tasks out,
sealed results in) and :mod:`gateway.admission.cards`.

Every step can be repeated: task ids follow from the job's name, a worker answers a known id with the task it has, and
what a step learned commits together with the change of state that it leads to.
"""
