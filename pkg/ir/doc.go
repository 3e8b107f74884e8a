// Package ir is the match-action program: fields, masks, registers, matches, actions and rules.
//
// It is what pkg/compile produces and what the back ends take: pkg/openflow turns a [Rule] into an OpenFlow
// flow, pkg/tc into flower filters. Values are plain data. A [Match] or an action list that has been handed
// over is never written again, so it may be shared between rules.
package ir
