// Package policy writes the table of what a context may say (docs/policy.md) from
// the code, and wants a test behind every row.
package policy
