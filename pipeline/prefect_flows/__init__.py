"""What imports Prefect: the flow, what its UI shows, and deployments. Imported only when a flow runs, so that `vcore plan` stays quick."""
