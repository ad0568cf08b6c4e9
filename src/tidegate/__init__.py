"""tidegate, the inference gateway you can pip install.

Envoy moves the bytes, Python makes the decisions. Four flows of data, each a path through the packages:

    publishing   engine statistics → composite metrics → exposition                    publish, protocol
    signals      /metrics → scan → LoadSignals → Pool (one row per endpoint)           scrape, pool, protocol
    request      Envoy asks → request → filters → scorers → picker → Envoy             gateway, picker
    outcomes     Envoy's access log → outcome → Pool                                   gateway, pool
"""

__version__ = "0.1.0"
