# consort hyper-v protocol 1: put-begin

# put-begin makes room for a file of this size and hash, and says from where on
# its bytes are missing: an upload that broke off goes on.
function Invoke-Request($a) {
    $path = Get-Stored $a.file
    New-Item -ItemType Directory -Force -Path (Split-Path -Parent $path) | Out-Null
    $part = '{0}.part' -f $path
    $note = '{0}.note' -f $path
    $text = Read-Whole $note
    if ($text -ne '' -and (Test-Path -LiteralPath $part)) {
        $seen = ConvertFrom-Json $text
        if ($seen.sha256 -ceq $a.sha256 -and $seen.size -eq $a.size) { return @{ offset = [long]$seen.offset } }
    }
    $f = New-Object System.IO.FileStream $part, ([IO.FileMode]::Create)
    try { $f.SetLength($a.size) } finally { $f.Close() }
    Write-Whole $note (ConvertTo-Json -InputObject @{ sha256 = $a.sha256; size = $a.size; offset = 0 } -Compress)
    @{ offset = [long]0 }
}
