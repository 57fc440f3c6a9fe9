// Package confinement has programs try to get out of a machine's process.
package confinement
