package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// interval is the pseudo-median of ratios (Hodges and Lehmann: the median of the means of any two, here geometric ones), and its 95 % interval by the bootstrap over
// rounds. Most of what two runs differ by is which process it was, by a tenth and more on virtual CPUs, so that pairs say little more than their number: it takes
// two thirds of the rounds that the median would for the same interval, and is as little moved by a round in which something happened.
func interval(ratios []float64, rnd *rand.Rand) (mid, low, high float64) {
	logs := make([]float64, len(ratios))
	for i, r := range ratios {
		logs[i] = math.Log(r)
	}
	mid, low, high = shift(logs, rnd)
	return math.Exp(mid), math.Exp(low), math.Exp(high)
}

// shift is the pseudo-median of values, and its interval.
func shift(values []float64, rnd *rand.Rand) (mid, low, high float64) {
	const resamples = 2000
	medians := make([]float64, resamples)
	sample := make([]float64, len(values))
	for i := range medians {
		for k := range sample {
			sample[k] = values[rnd.IntN(len(values))]
		}
		medians[i] = pseudoMedian(sample)
	}
	slices.Sort(medians)
	return pseudoMedian(values), medians[resamples*25/1000], medians[resamples*975/1000]
}

func pseudoMedian(values []float64) float64 {
	means := make([]float64, 0, len(values)*(len(values)+1)/2)
	for i, a := range values {
		for _, b := range values[i:] {
			means = append(means, (a+b)/2)
		}
	}
	return median(means)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
