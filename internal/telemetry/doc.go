// Package telemetry turns what a process observes into Prometheus metrics. It is the one home of the Prometheus client.
//
// [Coordinator] is a progress.Observer and shows the job: steps, worlds, checkpoints, accuracy. [Worker] is a
// worker.Observer and shows one member: the phases of its steps, its work and traffic, its failures. Both serve
// /metrics, each from its own registry, so that a process may hold several. Names begin with evenweave_, times are in
// seconds, sizes in bytes, fractions between 0 and 1.
package telemetry

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const namespace = "evenweave"

// stepBuckets range from half a millisecond, a short reduce, to half a minute, a recovery that waited for a new worker.
var stepBuckets = prometheus.ExponentialBuckets(0.0005, 2, 17)

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

func handler(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// factory makes and registers the metrics of one subsystem. Names are constants of this package: registering cannot
// fail at run time.
type factory struct {
	registry  *prometheus.Registry
	subsystem string
}

func (f factory) opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: namespace, Subsystem: f.subsystem, Name: name, Help: help}
}

func register[C prometheus.Collector](f factory, c C) C {
	f.registry.MustRegister(c)
	return c
}

func (f factory) gauge(name, help string) prometheus.Gauge {
	return register(f, prometheus.NewGauge(prometheus.GaugeOpts(f.opts(name, help))))
}

// gauges are one gauge for each value of the labels, once it is set.
func (f factory) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(f, prometheus.NewGaugeVec(prometheus.GaugeOpts(f.opts(name, help)), labels))
}

func (f factory) gaugeFunc(name, help string, value func() float64) {
	register(f, prometheus.NewGaugeFunc(prometheus.GaugeOpts(f.opts(name, help)), value))
}

func (f factory) counter(name, help string) prometheus.Counter {
	return register(f, prometheus.NewCounter(prometheus.CounterOpts(f.opts(name, help))))
}

// counters makes one counter for each value and starts all at 0: rate() would miss the first event of a counter that
// appears with it.
func (f factory) counters(name, help, label string, values ...string) *prometheus.CounterVec {
	v := register(f, prometheus.NewCounterVec(prometheus.CounterOpts(f.opts(name, help)), []string{label}))
	for _, value := range values {
		v.WithLabelValues(value)
	}
	return v
}

func (f factory) histogramOpts(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{Namespace: namespace, Subsystem: f.subsystem, Name: name, Help: help,
		Buckets: buckets}
}

func (f factory) histogram(name, help string, buckets []float64) prometheus.Histogram {
	return register(f, prometheus.NewHistogram(f.histogramOpts(name, help, buckets)))
}
