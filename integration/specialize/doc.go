// Package specialize holds what pkg/specialize makes of programs against the programs themselves: the same packets through the rules,
// through the flows as bytes, and through the filters, with equal verdicts.
package specialize
