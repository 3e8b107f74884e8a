package stats

import (
	"math"
	"math/rand/v2"
	"slices"
)

// replicates is of how many resamples an interval is made: with 2000 its ends are those of fifty of them.
const replicates = 2000

// A session is a difference between two paths in one session.
type session struct {
	difference float64
	// blocks are by how much the differences of its parts deviate from their mean. Empty: not known, and taken as none.
	blocks []float64
}

// newSession centres the differences of blocks. One block says nothing of how blocks vary.
func newSession(difference float64, blocks []float64) session {
	if len(blocks) < 2 || slices.ContainsFunc(blocks, func(b float64) bool { return math.IsInf(b, 0) || math.IsNaN(b) }) {
		return session{difference: difference}
	}
	var mean float64
	for _, b := range blocks {
		mean += b
	}
	mean /= float64(len(blocks))
	centred := make([]float64, len(blocks))
	for i, b := range blocks {
		centred[i] = b - mean
	}
	return session{difference, centred}
}

// effect is the median of the sessions.
func effect(sessions []session) float64 {
	values := make([]float64, len(sessions))
	for i, s := range sessions {
		values[i] = s.difference
	}
	return median(values)
}

// bootstrap returns effects of resamples, ascending: first sessions are drawn with replacement, then blocks of each.
func bootstrap(sessions []session, r *rand.Rand) []float64 {
	effects := make([]float64, replicates)
	values := make([]float64, len(sessions))
	for i := range effects {
		effects[i] = resample(sessions, values, r)
	}
	slices.Sort(effects)
	return effects
}

func resample(sessions []session, values []float64, r *rand.Rand) float64 {
	for j := range values {
		s := sessions[r.IntN(len(sessions))]
		values[j] = s.difference
		if n := len(s.blocks); n > 0 {
			var sum float64
			for range n {
				sum += s.blocks[r.IntN(n)]
			}
			values[j] += sum / float64(n)
		}
	}
	return median(values)
}

// median sorts values.
func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	if n%2 == 1 {
		return values[n/2]
	}
	return (values[n/2-1] + values[n/2]) / 2
}

// quantile returns that of ascending values by the nearest rank.
func quantile(ascending []float64, q float64) float64 {
	rank := int(math.Ceil(q*float64(len(ascending)) - 1e-9))
	return ascending[min(max(rank, 1), len(ascending))-1]
}

// expanded widens a level, as 0.05, for an interval of few sessions: resamples vary less than samples by (n-1)/n, and as if the deviation
// was known (Hesterberg, "What teachers should know about the bootstrap", 2015, section 4.3). Student's quantile is by the expansion of Peiser and
// Fisher (Abramowitz and Stegun, 26.7.5), which is good to a percent from five degrees of freedom on.
func expanded(level float64, n int) float64 {
	z := math.Sqrt2 * math.Erfinv(1-level)
	df := float64(n - 1)
	if df < 1 {
		return 0
	}
	t := z + (z*z*z+z)/(4*df) + (5*math.Pow(z, 5)+16*z*z*z+3*z)/(96*df*df)
	return math.Erfc(t * math.Sqrt(float64(n)/df) / math.Sqrt2)
}
