// Package consort is the root of the tree: it holds only the tests that keep
// the tree in order.
package consort
