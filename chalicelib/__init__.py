"""What Lambda ships: the hub and its launcher, in wings.

Each wing is a package that knows one thing. A wing imports only wings below it in this list; those on one line do not
know each other.

    wiring             which client, clock and random source each part is given; imported by app.py alone
    web, launcher      the hub's requests, forms, JSON and pages; one tick: perform an effect, save the event
    aws, engine        DynamoDB, S3 with KMS, SQS, SSM, X-Ray; the visitor's Docker endpoint and the notebook on it
    config             the hub's variables, and the only reader of the environment
    notebook           what runs on the endpoint: container, files, the hub's own certificates
    metrics            what the operator's alarms count, as lines of the log
    tracing            what may be told of how long the parts of the work take
    session, bundle    what a session is and how it goes on; how an upload becomes credentials
    repository         whose code is to be launched, as people write it down and link to it
    environment        what a configuration variable is
    text               how a stranger's text is shown
    errors             the root of all errors; each wing has its own family beside the code that raises it
    helper.py          no part of the hub: the program that resolves, builds and clones repositories on the endpoint

Rules

1. `session`, `bundle`, `notebook`, `metrics`, `tracing` and the modules below them are pure: values and decisions.
   They import no library that reaches outside: no AWS, Docker, network, file, process, clock or chance. The one
   exception: the keys and serial numbers of notebook/certificates.py are drawn by the cryptography library.
2. Only `engine` uses Docker and HTTP, only `aws` and `wiring` use boto3, only `web` (and app.py) uses Chalice.
3. Time, random sources, sleep and clients are arguments; some have the real thing as their default. Nothing is created
   at import.
4. The proxy, which is another program, imports `aws` and what lies below it, and never a wing that launches or serves.

The import contracts in pyproject.toml say all this in a form that `make lint` checks; docs/architecture.md draws the
imports there are.
"""
