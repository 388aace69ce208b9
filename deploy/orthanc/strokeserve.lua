-- Sends each CT series of which nothing has come for StableAge seconds to the gateway. Results are no CT series, so
-- that they do not go round.
function OnStableSeries(seriesId, tags, metadata)
   if tags['Modality'] == 'CT' then
      SendToModality(seriesId, 'strokeserve')
   end
end
