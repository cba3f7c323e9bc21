"""The server: one process that speaks HTTP and holds no model, and one process a model that draws.

    settings    what `pictura serve` was told          guard      who may ask: keys, hosts, sizes of bodies
    app         the routes, put together               routes/    one file for each wire format
    outside     requests as strangers may write and read them
    service     submit, wait, watch: what every wire format is made of
    supervisor  starts, restarts and retires workers   processes  where they run: here; on_ray: a cluster
    worker      claims tasks, draws them, keeps them   benches    how a worker draws: here or far away

The database is the only thing that they share, so either side may die and be started again at any time, and
there may be several of each. Accepted is stored; answers are sent after the commit.
"""
