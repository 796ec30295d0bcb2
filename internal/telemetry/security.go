package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"

	"evenweave/internal/security"
)

// Secured adds how others are reached. It is called once, before the metrics are served.
func (w *Worker) Secured(over *security.Transport) { secured(w.registry, over) }

// Secured adds how others are reached. It is called once, before the metrics are served.
func (c *Coordinator) Secured(over *security.Transport) { secured(c.registry, over) }

func secured(r *prometheus.Registry, over *security.Transport) {
	f := factory{registry: r}
	f.gaugeFunc("insecure", "1 if every process that reaches a port is served, as --insecure allows.", func() float64 {
		if over.Insecure() {
			return 1
		}
		return 0
	})
	keys := over.Keys()
	if keys == nil {
		return
	}
	f.gaugeFunc("tls_not_after_seconds", "When the certificate in use expires, seconds since 1970.",
		func() float64 { return float64(keys.NotAfter().Unix()) })
	register(f, prometheus.NewCounterFunc(prometheus.CounterOpts(f.opts("tls_reload_failures_total",
		"Times that the certificate files had changed and could not be used.")),
		func() float64 { return float64(keys.Failures()) }))
}
