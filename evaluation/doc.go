// Package evaluation is what a task shows of an evaluation beside its figures: of a classifier the confusion matrix,
// the most confident mistakes and how far confidence can be trusted, of predicted values the errors, of sequences the
// loss by position. It counts sample by sample, in memory that does not grow with them.
//
//	classes.go      counts of a classifier, and its results
//	details.go      these as evenweave.Details
//	values.go       errors of predicted values
//	positions.go    loss by position
//	reliability.go  the diagram of confidence
//	chart.go        what charts are drawn with
package evaluation
