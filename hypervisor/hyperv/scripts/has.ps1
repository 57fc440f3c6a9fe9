# consort hyper-v protocol 1: has

# has says whether a stored file is there, whole.
function Invoke-Request($a) { @{ has = (Test-Path -LiteralPath (Get-Stored $a.file)) } }
