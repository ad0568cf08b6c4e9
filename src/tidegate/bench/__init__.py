"""The laboratory: workloads, load, reports.

Flow: seed → workload.Arrival → client.run_load, open loop → results.RequestResult → report: a table and a verdict.

`demo` runs the main job twice, live, over a `fleet` of simulated servers behind a real Envoy. `load_run`
measures any server with a workload of the user's (`load_plan`), alone or against another. `scrape` measures what it
costs to read the servers' load.
"""
